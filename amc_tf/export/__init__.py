"""TFLite files of a Keras model, checked and timed."""
