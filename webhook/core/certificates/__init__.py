"""Certificates that Weightlock makes and renews itself: what is made of them, and what is to be done next.

Pure: nothing here knows where they are kept or what time it is.
"""
