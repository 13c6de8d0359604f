"""``SegPanelVisualizer``: image, truth and prediction of a segmentation side by side, with a legend."""

import numpy as np
from mmengine.dist import master_only
from mmengine.registry import VISUALIZERS
from mmengine.visualization import Visualizer
from PIL import Image, ImageDraw, ImageFont

GAP = 6  # pixels between panels
LINE = 16  # pixels a line of text


@VISUALIZERS.register_module()  # the root registry: mmsegmentation's scope finds the bare name there
class SegPanelVisualizer(Visualizer):
    """Visualizer for mmsegmentation's ``SegVisualizationHook``, in the layout of the paper's Figure 4.

    From left to right: the image, the true classes, the predicted ones, in the data set's colours; below them the
    names of the classes that occur. Pixels that are not scored are black. Without a truth its panel is left out.

    Select it with ``visualizer=dict(type='SegPanelVisualizer', vis_backends=[dict(type='LocalVisBackend')])``;
    ``tools/test.py --show-dir FOLDER`` then writes one PNG file an image.

    Args:
        **kwargs: Arguments of :class:`mmengine.visualization.Visualizer`.
    """

    @master_only
    def add_datasample(self, name: str, image: np.ndarray, data_sample=None, *, draw_gt: bool = True,
                       draw_pred: bool = True, show: bool = False, wait_time: float = 0,
                       out_file: str | None = None, step: int = 0, **kwargs) -> None:
        """Draw one image.

        Args:
            name (str): Identifier, part of the file's name.
            image (np.ndarray): (H, W, 3), RGB, 0 to 255.
            data_sample (SegDataSample): With ``pred_sem_seg`` and, maybe, ``gt_sem_seg``, each (1, H, W).
            draw_gt (bool): Whether to draw the truth. Defaults to True.
            draw_pred (bool): Whether to draw the prediction. Defaults to True.
            show (bool): Open a window rather than save. Defaults to False.
            wait_time (float): Seconds the window stays. Defaults to 0, until it is closed.
            out_file (str, optional): A file to write instead of the visualiser's backends. Defaults to None.
            step (int): Part of the file's name. Defaults to 0.
            **kwargs: Options of mmsegmentation's visualiser that have no meaning here.
        """
        panels, titles = [image], ['image']
        for wanted, key, title in ((draw_gt, 'gt_sem_seg', 'truth'), (draw_pred, 'pred_sem_seg', 'prediction')):
            if wanted and data_sample is not None and key in data_sample:
                panels.append(data_sample.get(key).data.squeeze(0).cpu().numpy())
                titles.append(title)
        meta = self.dataset_meta or {}
        picture = side_by_side(panels, titles, meta.get('classes', ()), meta.get('palette', ()))
        self.set_image(picture)
        if show:
            self.show(picture, win_name=name, wait_time=wait_time)
        elif out_file is not None:
            Image.fromarray(picture).save(out_file)
        else:
            self.add_image(name, picture, step)


def colour(labels: np.ndarray, palette: list) -> np.ndarray:
    """Labels (H, W) to colours (H, W, 3); what has no colour in the palette, 255 for one, is black."""
    colours = np.zeros((max(256, int(labels.max()) + 1), 3), dtype=np.uint8)
    colours[:len(palette)] = np.asarray(palette, dtype=np.uint8).reshape(-1, 3)
    return colours[labels]


def side_by_side(panels: list[np.ndarray], titles: list[str], classes: tuple, palette: list) -> np.ndarray:
    """Join an image and label maps of its size.

    Args:
        panels (list[np.ndarray]): (H, W, 3) images or (H, W) label maps.
        titles (list[str]): One a panel.
        classes (tuple[str]): Names by label.
        palette (list): RGB by label.

    Returns:
        np.ndarray: (height, width, 3), RGB, 0 to 255.
    """
    height, width = panels[0].shape[:2]
    total = len(panels) * (width + GAP) - GAP
    font = ImageFont.load_default()
    maps = [panel for panel in panels if panel.ndim == 2]
    seen = sorted({int(label) for labels in maps for label in np.unique(labels) if label < len(classes)})

    # one entry of the legend after another, as many a line as fit
    entries, x, y = [], 0, 0
    for label in seen:
        length = LINE + int(font.getlength(classes[label])) + GAP
        if x and x + length > total:
            x, y = 0, y + LINE
        entries.append((x, y, label))
        x += length

    legend = LINE + height + GAP
    picture = Image.new('RGB', (total, legend + (y + LINE if entries else 0)), 'white')
    draw = ImageDraw.Draw(picture)
    for index, (panel, title) in enumerate(zip(panels, titles)):
        pixels = panel if panel.ndim == 3 else colour(panel, palette)
        picture.paste(Image.fromarray(np.ascontiguousarray(pixels, dtype=np.uint8)), (index * (width + GAP), LINE))
        draw.text((index * (width + GAP), 1), title, fill='black', font=font)
    for x, y, label in entries:
        top = legend + y
        draw.rectangle((x, top + 2, x + LINE - 6, top + LINE - 3), fill=tuple(int(part) for part in palette[label]))
        draw.text((x + LINE - 2, top + 1), classes[label], fill='black', font=font)
    return np.asarray(picture)
