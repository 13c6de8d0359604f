"""The one exception that means "the user's input is wrong, and here is what to do"."""


class UserInputError(ValueError):
    """Wrong input: one sentence with what was given, what was expected and what to do.

    The command line tools print the sentence and exit with status 1; from Python it is a ``ValueError``.
    """


def root_cause(error: BaseException) -> BaseException:
    """The first :class:`UserInputError` of a chain.

    mmengine's registries re-raise whatever a constructor raises with ``class `X` in path:`` put before the
    message, once a nesting level. The sentence that was meant for the user is the innermost one. An error of a loader
    process arrives as its traceback, printed; the sentence is the last of it.

    Args:
        error (BaseException): The exception as it arrived.

    Returns:
        UserInputError: The innermost one of the chain, or ``error`` itself where it holds none.
    """
    found = error
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, UserInputError):
            found = link
        link = link.__cause__ or link.__context__
    if isinstance(found, UserInputError) and str(found).startswith('Caught UserInputError in '):
        return UserInputError(str(found).rpartition('UserInputError: ')[2].strip())
    return found
