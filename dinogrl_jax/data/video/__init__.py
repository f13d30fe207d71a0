"""From a camera's video and the boxes of a tracker to tracklets on disk."""
