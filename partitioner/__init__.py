"""The Application Partitioner: decides which device runs each AIM, with which implementation, and why.

``build_problem`` turns workflows and an inventory into a placement problem, ``planner.plan`` solves it (by
``search`` on the arrays of ``star``, proven by ``closing`` with ``prices``, small ones also with CP-SAT in
``solver``), ``shortage`` proves that there is not enough room, ``remap`` mends a running
plan, ``auction`` plans without a centre, ``checker`` judges a plan independently, ``report`` writes it down,
``lanes_svg`` and ``page`` draw it, ``compare`` and ``pareto`` set several side by side. Nothing here opens a
socket.

Source: Shabir, Torta, Basso, Damiani, "Towards Secure TinyML on a Standardized AI Architecture" (2023),
DOI 10.1007/978-3-031-42194-5_7, section 4.2. MPAI-AIF itself does not say how AIMs are distributed.
"""
