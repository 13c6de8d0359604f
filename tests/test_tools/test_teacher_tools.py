"""The teacher doctor."""
import pytest
import torch
from PIL import Image

from mimhd_mm.evaluation.teacher_doctor import diagnose, explained_variance, smooth_images
from mimhd_mm.weights.mae_files import read_mae_file

from ..conftest import build_mae
from .commands import call, error_of


def striped_images(count, seed=0):
    """One colour an image, with the same stripes in every patch, bright-dark or dark-bright: easy to continue."""
    generator = torch.Generator().manual_seed(seed)
    colour = torch.randn(count, 3, 1, 1, generator=generator)
    sign = torch.randint(0, 2, (count, 1, 1, 1), generator=generator) * 2 - 1
    stripes = torch.tensor([1., 1., -1., -1.]).repeat(8)
    return colour + 0.5 * sign * stripes  # (count, 3, 1, 32), expands to rows


def train_mae(norm_pix, steps=150):
    """An MAE that has learned to continue striped images."""
    torch.manual_seed(0)
    model = build_mae(norm_pix)
    model.init_weights()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    images = striped_images(256, seed=1).expand(-1, -1, 32, -1)
    for _ in range(steps):
        batch = images[torch.randint(len(images), (16,))]
        optimizer.zero_grad()
        model(batch, mode='loss')['loss'].backward()
        optimizer.step()
    return model


@pytest.fixture(scope='module', params=[True, False], ids=['normalised', 'raw'])
def trained(request, tmp_path_factory):
    from mmengine.registry import init_default_scope
    init_default_scope('mmpretrain')
    path = tmp_path_factory.mktemp('doctor') / 'mae.pth'
    torch.save(dict(state_dict=train_mae(request.param).state_dict()), path)
    return request.param, path


@pytest.mark.slow
def test_doctor_tells_normalised_from_raw_pixels(trained):
    norm_pix, path = trained
    found = diagnose(read_mae_file(path), striped_images(16, seed=2).expand(-1, -1, 32, -1), num_heads=4)
    assert found.num_heads == 4 and found.norm_pix == norm_pix
    assert found.explained > 0.1


@pytest.mark.slow
def test_doctor_keeps_the_heads_that_reconstruct_best(trained):
    _, path = trained
    file, images = read_mae_file(path), striped_images(16, seed=2).expand(-1, -1, 32, -1)
    best = diagnose(file, images)
    assert best.explained == max(diagnose(file, images, heads).explained for heads in (1, 2, 3, 4, 6))


def test_explained_variance_is_one_for_a_perfect_prediction_and_leaves_random_states_alone():
    class Perfect(torch.nn.Module):
        def forward(self, latent, ids_restore):
            model.head.norm_pix = False
            return model.head.construct_target(images)
    model, images = build_mae(), smooth_images(2, 32)
    model.neck = Perfect()
    state = torch.random.get_rng_state()
    result = dict(explained_variance(model, images))
    assert result[False] == pytest.approx(1) and result[True] < 0.9
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.slow
def test_check_teacher_tool(trained, tmp_path, capsys):
    norm_pix, path = trained
    pixels = striped_images(8, seed=3).expand(-1, -1, 32, -1) * torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    pixels = (pixels + torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)).clamp(0, 1) * 255
    for index, image in enumerate(pixels.byte().permute(0, 2, 3, 1).numpy()):
        Image.fromarray(image).save(tmp_path / f'{index}.png')
    arguments = [path, '--images', tmp_path, '--num-heads', 4]
    call('analysis_tools/check_teacher.py', *arguments)
    out = capsys.readouterr().out
    assert f'model.rec_head.norm_pix={norm_pix}' in out and '48 wide, 4 blocks' in out


def test_check_teacher_refuses(teacher_file, tmp_path):
    tensors = torch.load(teacher_file, weights_only=True)['state_dict']
    torch.save(dict(state_dict={k: v for k, v in tensors.items() if k.startswith('backbone.')}), tmp_path / 'enc.pth')
    for path, message in ((tmp_path / 'enc.pth', 'encoder but no decoder'), (teacher_file, 'does not reconstruct'),
                          (tmp_path / 'no.pth', 'No file')):
        assert message in error_of('analysis_tools/check_teacher.py', path)
