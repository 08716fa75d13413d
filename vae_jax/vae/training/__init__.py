"""Training: objectives, schedules, the compiled loop, scores of images, many seeds at once."""
