"""The Application Partitioner: decides which device runs each AIM, with which implementation, and why.

``problem`` turns workflows and an inventory into a placement problem; ``planner`` makes a plan of it with
what ``search`` offers (arrays, assignments of whole workflows, prices for room, CP-SAT for small ones), each
with a proven bound, or proves that there is none. ``remap`` mends a plan, ``site`` plans beside what runs,
``auction`` plans without a centre, ``objectives``, ``pareto`` and ``alternatives`` vary what is wanted,
``explain`` and ``reasons`` say why. ``checker`` judges a plan independently, ``report`` writes it down and
draws it, ``instances`` makes problems. Nothing here opens a socket.

Source: Shabir, Torta, Basso, Damiani, "Towards Secure TinyML on a Standardized AI Architecture" (2023),
DOI 10.1007/978-3-031-42194-5_7, section 4.2. MPAI-AIF itself does not say how AIMs are distributed.
"""
