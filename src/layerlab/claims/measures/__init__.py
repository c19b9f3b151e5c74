"""What a claim measures beyond logged figures: a file with one function `(model, data, ...) -> {name: number}` each.

GIVES: the names, with the axes of each. An axis of the claim's `within` reaches the function as the argument of that
name, and its values come back in the names: `glog(lag=50)`.
"""
