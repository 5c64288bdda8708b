"""Demonstrations: LeRobot data sets and HDF5 episodes read and written, recorded from experts, cut into windows."""
