"""Steps of training: their data, their sizes, their time."""
