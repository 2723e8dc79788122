"""Certificates that Weightlock issues and renews itself: their encoding, and the next step.

Pure: nothing here reads storage or a clock.
"""
