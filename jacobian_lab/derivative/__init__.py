"""Products with the derivative of any network at one point, on one checked ladder. Not called by
users.
"""
