"""Network namespaces on a switch that this process is: links that can be cut, slowed and spoilt.

Each namespace, and the machine itself, has a TAP device whose other end is a file of this process.
Whatever passes between two of them passes through here, frame by frame, so every kind of fault works on
every Linux that has namespaces and TAP devices, with nothing but iproute2; whether the kernel has been
built with netem or a packet filter does not matter. It is fast enough for tests, not for benchmarks.
"""
import fcntl
import heapq
import os
import random
import re
import shutil
import select
import struct
import subprocess
import threading
import time

COMMANDS = ("cut", "cut-one-way", "isolate", "slow", "heal")
HOST = 0  # the machine's own place on the switch

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
FRAME = 65536
# Large frames are few frames.
MTU = 32000
# Frames that wait to be late; more are dropped, as a router does.
WAITING = 20000


class Fault:
    """What happens to frames from one place to another."""

    def __init__(self, cut=False, delay=0.0, jitter=0.0, loss=0.0, reorder=0.0, duplicate=0.0):
        self.cut, self.delay, self.jitter = cut, delay, jitter
        self.loss, self.reorder, self.duplicate = loss, reorder, duplicate


class Network:
    """Namespaces 1 to `size`, with addresses that the machine can reach."""

    def __init__(self, size):
        if os.geteuid() != 0 or not os.path.exists("/dev/net/tun") or not shutil.which("ip"):
            raise RuntimeError("network namespaces need root, /dev/net/tun and iproute2")
        self.size = size
        self.faults = {}
        self.names = []
        self.taps = {}
        self.lock = threading.Lock()
        remove_stale()
        self.subnet = free_subnet()
        self.wake, self.woken = os.pipe()
        self.thread = None
        try:
            for place in range(size + 1):
                self.add(place)
        except BaseException:
            self.close()
            raise
        self.thread = threading.Thread(target=self.switch, daemon=True)
        self.thread.start()

    def address(self, place):
        return f"10.77.{self.subnet}.{place if place else 254}"

    def inside(self, place):
        """What a command line begins with that is to run in a namespace."""
        return ["ip", "netns", "exec", self.name(place)]

    def name(self, place):
        return f"cairn-{os.getpid()}-{place}"

    def add(self, place):
        tap = f"ct{os.getpid() % 10**8}-{place}"
        self.taps[place] = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(self.taps[place], TUNSETIFF, struct.pack("16sH", tap.encode(), IFF_TAP | IFF_NO_PI))
        within = []
        if place != HOST:
            ip("netns", "add", self.name(place))
            self.names.append(self.name(place))
            ip("link", "set", tap, "netns", self.name(place))
            within = ["-n", self.name(place)]
            ip(*within, "link", "set", "lo", "up")
        ip(*within, "link", "set", tap, "address", f"02:00:00:00:00:{place:02x}", "mtu", str(MTU))
        ip(*within, "address", "add", f"{self.address(place)}/24", "dev", tap)
        ip(*within, "link", "set", tap, "up")

    def close(self):
        if self.thread:
            os.write(self.woken, b"x")
            self.thread.join()
        # A TAP device goes with its file.
        for tap in self.taps.values():
            os.close(tap)
        self.taps = {}
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name], check=False)
        self.names = []

    def command(self, verb, words):
        with self.lock:
            if verb == "heal":
                self.faults = {}
            elif verb == "isolate":
                self.between(self.place(words[0]), self.members(), Fault(cut=True))
            elif verb == "cut":
                self.between(self.place(words[0]), [self.place(words[1])], Fault(cut=True))
            elif verb == "cut-one-way":
                self.faults[self.place(words[0]), self.place(words[1])] = Fault(cut=True)
            elif verb == "slow":
                fault = Fault(**dict(map(read_fault, words[2:])))
                pairs = [self.members() if word == "all" else [self.place(word)] for word in words[:2]]
                for one in pairs[0]:
                    self.between(one, pairs[1], fault)

    def members(self):
        return range(1, self.size + 1)

    def place(self, word):
        if not word.isdigit() or int(word) not in self.members():
            raise RuntimeError(f"no such member: {word}")
        return int(word)

    def between(self, one, others, fault):
        for other in others:
            if other != one:
                self.faults[one, other] = self.faults[other, one] = fault

    def switch(self):
        """Passes frames on until it is woken."""
        places = {tap: place for place, tap in self.taps.items()}
        late, number = [], 0
        while True:
            wait = max(0, late[0][0] - time.monotonic()) if late else None
            ready, _, _ = select.select([*places, self.wake], [], [], wait)
            if self.wake in ready:
                return
            for tap in ready:
                for _ in range(64):
                    try:
                        frame = os.read(tap, FRAME)
                    except BlockingIOError:
                        break
                    except OSError:
                        return
                    for to, delay in self.fates(places[tap], frame):
                        number += 1
                        if delay == 0:
                            self.deliver(to, frame)
                        elif len(late) < WAITING:
                            heapq.heappush(late, (time.monotonic() + delay, number, to, frame))
            while late and late[0][0] <= time.monotonic():
                _, _, to, frame = heapq.heappop(late)
                self.deliver(to, frame)

    def fates(self, place, frame):
        """Where a frame goes, and how many seconds later; twice, if it is doubled."""
        only = frame[5] if frame[:5] == b"\x02\x00\x00\x00\x00" else None
        for to in self.taps:
            if to == place or only not in (None, to):
                continue
            with self.lock:
                fault = self.faults.get((place, to))
            if fault is None:
                yield to, 0
            elif not fault.cut and random.random() >= fault.loss:
                for _ in range(2 if random.random() < fault.duplicate else 1):
                    late = fault.delay + fault.jitter * random.random()
                    # As netem has it: what is reordered overtakes what is delayed.
                    yield to, 0 if random.random() < fault.reorder else late

    def deliver(self, to, frame):
        try:
            os.write(self.taps[to], frame)
        except OSError:
            pass  # its queue is full, or the device is down


def ip(*words):
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def remove_stale():
    """Namespaces whose script was killed before it could remove them."""
    for name in re.findall(r"^cairn-\d+-\d+", ip("netns", "list"), re.M):
        if not os.path.exists(f"/proc/{name.split('-')[1]}"):
            ip("netns", "delete", name)


def free_subnet():
    taken = set(re.findall(r"10\.77\.(\d+)\.", ip("route")))
    # From somewhere in the middle, since two may be looking at once.
    candidates = [(os.getpid() + step) % 250 for step in range(250)]
    for candidate in candidates:
        if str(candidate) not in taken:
            return candidate
    raise RuntimeError("no network 10.77.x.0/24 is free")


def read_fault(word):
    """`delay=20ms` or `loss=5%`, in seconds or as a part of one."""
    name, _, value = word.partition("=")
    number = re.fullmatch(r"([0-9.]+)(ms|s|%)", value)
    wanted = ("ms", "s") if name in ("delay", "jitter") else ("%",)
    if name not in ("delay", "jitter", "loss", "reorder", "duplicate") or not number or number[2] not in wanted:
        raise RuntimeError(f"no such fault: {word}")
    return name, float(number[1]) * {"ms": 0.001, "s": 1, "%": 0.01}[number[2]]
