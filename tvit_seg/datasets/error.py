"""What bad data raises."""


class DataError(ValueError):
    """The data cannot be trained on; the message says what to mend."""


class CorruptImageError(DataError):
    """One image that cannot be decoded, or must not be; ``skip_corrupt=True`` passes it over."""


class UnknownFormatError(CorruptImageError):
    """A file that PIL does not take for an image."""
