"""Does deraining help an object detector? Measured in a way that allows the answer no.

Truth comes from labels (``truth``), detections from ``detectors``, pictures from ``sources`` by
way of ``candidates``; ``harness`` brings them together, ``scoring`` and ``bootstrap`` turn them
into differences with intervals, ``analysis`` into verdicts, and ``report`` into pages.
"""
