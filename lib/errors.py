"""The one error type that is meant for the person who runs the study."""


class StudyError(ValueError):
    """A mistake in parameters, files or models, told in one line with its mend."""
