# ImageNet-1K at 224 px for fine-tuning, with MAE's augmentation (FINETUNE.md): crops of 8 to 100 % of the area, flips,
# RandAugment (magnitude 9, deviation 0.5, two policies), random erasing at 0.25; tested on the centre 224 px of a
# short edge of 256 px. mmpretrain's file holds exactly that. Put the data set at `data_root`.
_base_ = 'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py'

train_dataloader = dict(batch_size=128, num_workers=8, persistent_workers=True, drop_last=True)
val_dataloader = dict(batch_size=128, num_workers=8, persistent_workers=True)
test_dataloader = val_dataloader
