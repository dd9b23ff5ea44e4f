"""What bad data raises."""


class DataError(ValueError):
    """The data cannot be trained on; the message says what to mend."""
