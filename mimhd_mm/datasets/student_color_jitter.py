"""``StudentColorJitter``: a second view that differs in colour only, for the student alone."""
from mmpretrain.datasets.transforms import ColorJitter

from ..registry import TRANSFORMS


@TRANSFORMS.register_module()
class StudentColorJitter(ColorJitter):
    """Jitters colours for the student and leaves the teacher's image unchanged.

    TinyMIM does this, with 0.4 for brightness, contrast and saturation. Place it after the crops and flips, which the
    two networks share. ``img`` becomes the list of the student's view and the teacher's; ``TinyMIM`` and ``MIMHD``
    accept it. Arguments are those of mmpretrain's ``ColorJitter``.

    Required keys: ``img``. Modified keys: ``img``.
    """

    def transform(self, results: dict) -> dict:
        """``img`` (H, W, 3) to ``[jittered (H, W, 3), as it was (H, W, 3)]``."""
        teacher = results['img']
        results = super().transform(dict(results))
        results['img'] = [results['img'], teacher]
        return results
