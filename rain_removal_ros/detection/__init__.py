"""Does taking the rain out help those who look at the pictures? Measured so that the answer may
be no.

Truth comes from labels (``truth``), detections from ``detectors``, pictures from ``sources`` by
way of ``candidates``; ``harness`` brings them together, ``scoring`` and ``bootstrap`` turn them
into differences with intervals, ``analysis`` into verdicts, and ``report`` into pages.
"""
