"""What training says when it refuses."""


class TrainingError(ValueError):
    """A refusal in one sentence that names what was expected, what came and what to do."""
