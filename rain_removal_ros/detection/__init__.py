"""Measures whether deraining helps an object detector, in a way that allows the answer no.

``truth`` reads labels, ``detectors`` find objects, ``sources`` give frames and ``candidates`` turn
them into pictures. ``harness`` runs all combinations, ``scoring`` and ``bootstrap`` give
differences with intervals, ``analysis`` verdicts, and ``report`` pages.
"""
