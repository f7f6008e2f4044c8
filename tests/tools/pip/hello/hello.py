import multiprocessing

import plain


def main():
    # Semaphores in shared memory, and processes that are connected by sockets.
    with multiprocessing.Pool(4) as pool:
        print(pool.map(plain.greet, ["one", "two", "three", "four"]))
