"""What goes wrong in an export, in words for the user."""


class ExportError(ValueError):
    """A model that cannot be exported as asked, or a written graph that is not the model."""
