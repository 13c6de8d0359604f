"""tools/train.py with MIM-HD: whatever is wrong with the model or its teacher is one sentence, before any training."""
import shutil

import pytest
import torch

from .commands import ROOT, error_of

CONFIG = ROOT / 'configs/pretrain/mini/mimhd_vit-demo-student-p4_1xb64-coslr-15e_mnist-32px.py'


@pytest.fixture(scope='module')
def data(tmp_path_factory, image_folder):
    root = tmp_path_factory.mktemp('data')
    shutil.copytree(image_folder, root / 'train')
    return root


@pytest.fixture
def refused(data, tmp_path):
    """The sentence for a config with these options; nothing may have been trained."""
    def sentence(*options):
        message = error_of('train.py', CONFIG, '--work-dir', tmp_path / 'run', '--cfg-options',
                           f'train_dataloader.dataset.data_root={data}', 'train_dataloader.num_workers=0', *options)
        assert not list((tmp_path / 'run').rglob('*.pth'))
        return message
    return sentence


@pytest.mark.parametrize('option, named', [
    ('model.backbone.img_size=64', ['16 x 16 patches', '8 x 8']),
    ('model.target_generator.block=7', ['Block 7', 'blocks 1 to 6']),
    ('model.backbone.relation_block=5', ['Block 5', 'blocks 1 to 4']),
    ('model.backbone.arch.num_heads=5', ['5 heads', 'width of 48']),
    ('model.backbone.relation_heads=7', ['7 heads', 'width of 48']),
    ('model.head.matcher.type=BestHeadMatcher', ["'BestHeadMatcher'", 'AttentionHeadMatcher']),
    ('model.head.matcher.sharpness=2', ['OneToOneHeadMatcher', "'sharpness'", 'relation_heads']),
    ('model.head.matcher.type=AttentionHeadMatcher model.head.matcher.descriptor=rows', ["'rows'", "'column'"]),
    ('model.head.matcher.type=AttentionHeadMatcher model.head.matcher.balance=entropy', ["'entropy'", "'sinkhorn'"]),
    ('model.head.loss.criterion=MSE', ["'MSE'", 'KL, L2']),
    ('model.head.pairs="[kv]"', ["'kv'", "'qk'"]),
    ('model.neck.mask_ratio=1.5', ['mask_ratio', '1.5']),
    ('model.rec_weight=-1', ['rec_weight', '-1']),
])
def test_model_that_cannot_be_built(refused, option, named):
    message = refused(*option.split())
    assert all(part in message for part in named), message


def test_teacher_that_cannot_be_used(refused, teacher_file, tmp_path):
    whole = teacher_file.read_bytes()
    (tmp_path / 'half.pth').write_bytes(whole[:len(whole) // 2])
    content = torch.load(teacher_file, weights_only=True)
    encoder = {key: value for key, value in content['state_dict'].items() if key.startswith('backbone.')}
    torch.save(dict(state_dict=encoder), tmp_path / 'encoder.pth')
    for path, named in (('missing.pth', 'No file'), ('half.pth', 'truncated'), ('encoder.pth', 'no decoder')):
        message = refused(f'model.target_generator.checkpoint={tmp_path / path}', 'train_dataloader.batch_size=8')
        assert str(tmp_path / path) in message and named in message
    message = refused(f'model.target_generator.checkpoint={teacher_file}', 'train_dataloader.batch_size=8')
    assert 'has embed_dims=48' in message


def test_fewer_images_than_a_batch(refused):
    assert '32 training images fill no batch of 64' in refused('train_dataloader.batch_size=64')
