"""io_uring without a library: one request at a time."""
import ctypes, mmap, os, struct

URING_SENDMSG, URING_CONNECT, URING_SEND_ZC, URING_BIND = 9, 16, 47, 56


def uring(opcode, fd, address, length, second=0, flags=0, address_length=0):
    """Makes a request and returns its result. `second` is the entry's other 64-bit field (off, addr2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    params = (ctypes.c_uint32 * 30)()
    ring = libc.syscall(425, 1, params)
    if ring < 0:
        raise OSError(ctypes.get_errno(), "io_uring_setup")
    (_, sq_tail, _, _, _, _, sq_array), (_, _, _, _, _, cqes) = params[10:17], params[20:26]
    submission, completion = mmap.mmap(ring, 4096), mmap.mmap(ring, 4096, offset=0x8000000)
    entries = mmap.mmap(ring, 4096, offset=0x10000000)
    entries[:64] = struct.pack(
        "=BBHiQQIIQHHHHQQ", opcode, 0, 0, fd, second, address, length, flags, 0, 0, 0, address_length, 0, 0, 0
    )
    submission[sq_array : sq_array + 4] = bytes(4)
    submission[sq_tail : sq_tail + 4] = struct.pack("=I", 1)
    if libc.syscall(426, ring, 1, 1, 1, None, 0) < 0:  # one to submit, one to wait for
        raise OSError(ctypes.get_errno(), "io_uring_enter")
    result = struct.unpack_from("=i", completion, cqes + 8)[0]
    os.close(ring)
    if result < 0:
        raise OSError(-result, "io_uring")
    return result
