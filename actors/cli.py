def main() -> int:
    """Entry point of the command line."""
    return 0
