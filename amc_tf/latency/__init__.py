"""Latency of pruned networks, from a table of what their operators take on a device.

`operators` reads a TFLite file's operators as text and makes files of them;
`blueprint` tells their shapes from channel counts; `table` keeps what a device
measured; `surface` says what to measure, and fills in between; `calibration`
goes from the sum of operators to the network; `cost` puts these together;
`choice` picks among the best plans by measuring them whole.
"""
