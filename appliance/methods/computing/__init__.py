"""Methods that compute, in processes of their own: one appliance on several cores.

`handler` is what the subscriber calls in the place of such a method, `pool` keeps the processes, `process` starts one and
talks to it, `child` is what runs there, `frames` what goes between.
"""
