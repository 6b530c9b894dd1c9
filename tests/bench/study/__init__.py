"""The study: does AdvDistill beat copying, where, and by how much?"""
