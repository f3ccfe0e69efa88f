"""The embedded world: scenes, pictures, annotators and questions with known ground truth."""
