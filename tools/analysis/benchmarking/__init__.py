"""Speed of thinking models against others, measured side by side."""
