"""What is done to a batch between the dataloader and the model."""
from .device_augmentation import DeviceAugmentation

__all__ = ['DeviceAugmentation']
