"""The tasks that score a student: names, log keys and table headings."""

#: task -> the number in the log of its training, in percent; k-NN trains nothing
METRICS = {'knn': None, 'linear': 'accuracy/top1', 'finetune': 'accuracy/top1', 'linear_segmentation': 'mIoU',
           'segmentation': 'mIoU'}
#: those of mmsegmentation's models and data
SEGMENTATIONS = ('linear_segmentation', 'segmentation')
#: task -> column
COLUMNS = {'knn': 'k-NN', 'linear': 'linear', 'finetune': 'fine-tuned', 'linear_segmentation': 'linear mIoU',
           'segmentation': 'mIoU'}
#: the paper's numbers in a table of the paper -> column
PAPER = {'top1': 'PAPER: fine-tuned top-1', 'mIoU': 'PAPER: mIoU'}
