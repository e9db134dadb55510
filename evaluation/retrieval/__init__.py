"""Which way of comparing collections finds the right label, and do certificates hold?"""
