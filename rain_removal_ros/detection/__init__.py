"""Does taking the rain out help those who look at the pictures? Measured so that the answer may
be no.

Truth comes from labels (``truth``), detections from ``detectors``, pictures from ``sources`` by
way of ``arms``; ``harness`` brings them together, ``scoring`` and ``bootstrap`` turn them into
differences with intervals, ``findings`` into verdicts, and ``document`` into pages.
"""
