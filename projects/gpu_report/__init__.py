"""``make gpu-report``: time networks beside their dense peers on a machine, and write a page of what came out.

``entries`` says what is measured, ``suite`` measures it, ``parity`` compares the device with the CPU, ``report`` makes
CSV and page, and ``__main__`` is the front of all.
"""
