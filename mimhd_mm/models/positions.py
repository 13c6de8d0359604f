"""Position embeddings: MAE's sine-cosine ones, and those of one grid of patches for another."""

from mmpretrain.models.utils import build_2d_sincos_position_embedding, resize_pos_embed
from torch import Tensor

from ..errors import UserInputError


def resize_positions(pos_embed: Tensor, grid: tuple[int, int], source: tuple[int, int] | None = None,
                     mode: str = 'bicubic') -> Tensor:
    """Position embeddings of one grid of patches, [class] first, for another grid.

    Args:
        pos_embed (Tensor): (1, 1 + n * m, C).
        grid (tuple): Rows and columns of patches wanted.
        source (tuple, optional): Rows and columns of ``pos_embed``. None takes them for a square; where their number is
            no square's, for ``grid``. Defaults to None.
        mode (str): Interpolation. Defaults to ``'bicubic'``.

    Returns:
        Tensor: (1, 1 + rows * columns, C); the same values where the grid is the same.

    Raises:
        UserInputError: If the embeddings are of another grid that is not square.
    """
    number = pos_embed.shape[1] - 1
    if source is None:
        side = round(number ** .5)
        source = (side, side) if side * side == number else grid
    if source[0] * source[1] != number:
        raise UserInputError(f'Position embeddings of {number} patches are of no square grid and not of {grid[0]} x '
                             f'{grid[1]} patches either; set img_size to the size that the file was trained at.')
    return resize_pos_embed(pos_embed, source, tuple(grid), mode)


def sincos_positions(grid: tuple[int, int], dims: int) -> Tensor:
    """MAE's fixed sine-cosine position embeddings, [class] first; those of a square, resized, for other grids.

    Args:
        grid (tuple): Rows and columns of patches.
        dims (int): C, a multiple of 4.

    Returns:
        Tensor: (1, 1 + rows * columns, C).
    """
    square = max(grid)
    return resize_positions(build_2d_sincos_position_embedding(square, dims, cls_token=True), grid, (square, square))
