"""The wall: what only TensorFlow does faster, each way beside the plain one of Keras.

Nothing outside this folder asks which backend computes. Every door in `doors.py` opens to a fast
way where TensorFlow is the backend and to Keras's own way everywhere else; tests hold the two
together.
"""
