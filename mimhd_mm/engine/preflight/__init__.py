"""What is checked before a run starts: devices, folders, images, and the file that training starts from."""
from .checks import check_config, check_image_folder
from .pretrained import check_pretrained

__all__ = ['check_config', 'check_image_folder', 'check_pretrained']
