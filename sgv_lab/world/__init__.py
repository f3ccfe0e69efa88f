"""The drawn world: scenes, images, annotators and questions with known ground truth."""
