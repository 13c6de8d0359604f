"""Head counts of a student's file: read from its meta without executing it, and compared before fine-tuning."""
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mimhd_mm.compat import load_checkpoint_safely
from mimhd_mm.engine.preflight.pretrained import check_pretrained, heads_of_file
from mimhd_mm.errors import UserInputError
from mimhd_mm.registry import MODELS

from ..conftest import SIZE, STUDENT, mimhd_cfg

ARCH = f'arch=dict({", ".join(f"{key}={value}" for key, value in STUDENT.items())})'


def save(path, text=None, tensors=None, **meta):
    """A file with the text of a config in its meta, as mmengine writes it."""
    torch.save(dict(state_dict=tensors or {}, meta=dict(meta, **({} if text is None else dict(cfg=text)))), path)
    return path


def heads_by(tmp_path, backbone: str):
    return heads_of_file(save(tmp_path / 'file.pth', f"model = dict(backbone=dict(type='RelationViT', {backbone}))\n"))


@pytest.fixture
def adaptive(tmp_path, teacher_file, image_folder):
    """What a real run saves of a student whose last block has 4 heads and not 3."""
    model = mimhd_cfg(teacher_file, backbone=dict(relation_heads=4))
    model['head'] = dict(model['head'], matcher=dict(type='OneToOneHeadMatcher'))
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
    Runner.from_cfg(Config(dict(
        default_scope='mmpretrain', model=model, work_dir=str(tmp_path / 'run'), log_level='ERROR',
        experiment_name=f'{tmp_path.name}_adaptive', train_cfg=dict(by_epoch=True, max_epochs=1),
        data_preprocessor=dict(type='SelfSupDataPreprocessor', mean=[127.] * 3, std=[60.] * 3),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-3)), train_dataloader=dict(
            batch_size=16, num_workers=0, collate_fn=dict(type='default_collate'),
            sampler=dict(type='DefaultSampler', shuffle=True), dataset=dict(
                type='CustomDataset', data_root=str(image_folder), with_label=False, pipeline=pipeline))))).train()
    return tmp_path / 'run' / 'epoch_1.pth'


def finetune_cfg(checkpoint, **backbone) -> Config:
    return Config(dict(default_scope='mmpretrain', train_cfg=dict(max_epochs=1), model=dict(
        type='ImageClassifier', backbone=dict(
            type='VisionTransformer', arch=dict(STUDENT), out_type='avg_featmap', **SIZE, **backbone,
            init_cfg=dict(type='Pretrained', checkpoint=str(checkpoint), prefix='backbone.')))))


def test_checkpoint_of_a_run(adaptive):
    assert heads_of_file(adaptive) == [3, 3, 4]


def test_wrong_head_count_is_refused_with_the_line_that_sets_it_right(adaptive, tmp_path):
    with pytest.raises(UserInputError) as caught:
        check_pretrained(finetune_cfg(adaptive))
    message = str(caught.value)
    assert 'block 3 has 4 heads' in message and 'but 3 by the config' in message and '\n' not in message

    base, line = tmp_path / 'base.py', message[message.index('model = dict('):]
    finetune_cfg(adaptive).dump(base)
    (tmp_path / 'child.py').write_text(f"_base_ = './base.py'\n{line}\n")
    cfg = Config.fromfile(tmp_path / 'child.py')
    check_pretrained(cfg)
    built = MODELS.build(dict(cfg.model.backbone, init_cfg=None))
    assert [layer.attn.num_heads for layer in built.layers] == [3, 3, 4]


def test_file_that_does_not_tell_is_not_refused(adaptive):
    torch.save(dict(state_dict=load_checkpoint_safely(adaptive)['state_dict'], meta={}), adaptive)
    assert heads_of_file(adaptive) is None
    check_pretrained(finetune_cfg(adaptive))


def test_students_of_one_teacher(tmp_path):
    """Each has its own head counts; a prefix that names none of them is refused with the names."""
    cfg = Config(dict(model=dict(type='MultiStudent', students=dict(
        a=dict(backbone=dict(type='RelationViT', arch=dict(STUDENT), **SIZE)),
        b=dict(backbone=dict(type='RelationViT', arch=dict(STUDENT), relation_heads=4, **SIZE))))))
    tensors = MODELS.build(finetune_cfg('').model.backbone).state_dict()
    path = save(tmp_path / 'file.pth', cfg.pretty_text, {
        f'students.{name}.backbone.{key}': value for name in 'ab' for key, value in tensors.items()})
    assert heads_of_file(path, 'students.a.backbone.') == [3, 3, 3]
    assert heads_of_file(path, 'students.b.backbone.') == [3, 3, 4]
    assert heads_of_file(path) is None and heads_of_file(path, 'students.c.backbone.') is None

    def start_from(prefix):
        cfg = finetune_cfg(path)
        cfg.model.backbone.init_cfg.prefix = prefix
        return cfg

    check_pretrained(start_from('students.a.backbone.'))
    with pytest.raises(UserInputError, match='block 3 has 4 heads'):
        check_pretrained(start_from('students.b.backbone.'))
    with pytest.raises(UserInputError) as caught:
        check_pretrained(start_from('backbone.'))
    assert str(caught.value).endswith(
        "has no tensor under 'backbone.', it is a checkpoint of the students a, b; choose one with --cfg-options "
        'model.backbone.init_cfg.prefix=students.a.backbone.')


def test_files_of_several_students_are_checked(tmp_path, teacher_file):
    model = mimhd_cfg(teacher_file)
    teacher = model.pop('target_generator')
    model['backbone']['init_cfg'] = dict(type='Pretrained', checkpoint='nowhere.pth', prefix='backbone.')
    cfg = Config(dict(train_cfg=dict(max_epochs=1), model=dict(
        type='MultiStudent', students=dict(a=model), target_generator=teacher)))
    with pytest.raises(UserInputError, match='--cfg-options model.students.a.backbone.init_cfg.checkpoint=FILE'):
        check_pretrained(cfg)


@pytest.mark.parametrize('backbone, heads', [
    (ARCH, [3] * 3),
    (f'{ARCH}, relation_heads=None', [3] * 3),
    (f'{ARCH}, relation_heads=4', [3, 3, 4]),
    (f'{ARCH}, relation_heads=4, relation_block=1', [4, 3, 3]),
    (f'{ARCH}, layer_cfgs=dict(num_heads=6)', [6] * 3),
    (f'{ARCH}, layer_cfgs=[dict(), dict(num_heads=6), dict()]', [3, 6, 3]),
    (f'{ARCH}, layer_cfgs=[dict(), dict(num_heads=6), dict()], relation_heads=4', [3, 6, 4]),
    ("arch='deit-tiny', relation_heads=16", [3] * 11 + [16]),
    ("arch={'embed_dims': 8, 'num_layers': 1, 'num_heads': 2, 'feedforward_channels': 8}", [2]),
    ("arch=dict({'embed_dims': 8, 'num_layers': 1, 'num_heads': 2, 'feedforward_channels': 8})", [2]),
    ("arch='unheard-of'", None),
    (f'{ARCH}, relation_heads=four', None),
    (f'{ARCH}, layer_cfgs=[dict()]', None),
    (f'{ARCH}, layer_cfgs=[1, 2, 3]', None),
    (f'{ARCH}, relation_heads="4"', None),
])
def test_forms_of_a_config(tmp_path, backbone, heads):
    assert heads_by(tmp_path, backbone) == heads


@pytest.mark.parametrize('text', ['', 'model = 1', 'model = dict(', 'other = dict()', 'model = dict(head=dict())',
                                  'model = dict(backbone=dict(**arguments))', '(' * 5000, 7])
def test_text_that_is_no_config_of_ours(tmp_path, text):
    assert heads_of_file(save(tmp_path / 'file.pth', text)) is None


def test_export_counts_most(tmp_path):
    text = f'model = dict(backbone=dict({ARCH}))'
    assert heads_of_file(save(tmp_path / 'file.pth', text, num_heads=[3, 3, 6])) == [3, 3, 6]
    assert heads_of_file(save(tmp_path / 'file.pth', text, num_heads='none')) == [3] * 3


def test_text_is_never_executed(tmp_path):
    touched = tmp_path / 'touched'
    evil = f"__import__('pathlib').Path({str(touched)!r}).touch()"
    assert heads_by(tmp_path, f'{ARCH}, relation_heads={evil}') is None
    assert heads_by(tmp_path, f'{ARCH}, init_cfg={evil}') == [3] * 3  # nobody looks there
    assert heads_by(tmp_path, f'arch=dict(**{evil})') is None
    assert heads_by(tmp_path, f'arch={{{evil}: 1}}') is None
    assert heads_of_file(save(tmp_path / 'file.pth', f'{evil}\nmodel = dict(backbone={evil})')) is None
    assert heads_of_file(save(tmp_path / 'file.pth', f'{evil}\nmodel = dict(backbone=dict({ARCH}))')) == [3] * 3
    assert not touched.exists()


def test_file_that_cannot_be_read(tmp_path):
    (tmp_path / 'file.pth').write_bytes(b'nothing')
    with pytest.raises(UserInputError, match='file.pth'):
        heads_of_file(tmp_path / 'file.pth')
