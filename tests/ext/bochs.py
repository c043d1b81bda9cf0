"""The AVX-512 kernels held against the scalar ones on a processor that has none: Linux in an emulator.

    python -m tests.ext.bochs [--kernel /boot/vmlinuz-...]

``check_variants.c`` becomes the one program of a Linux that Bochs boots as a Skylake-X. qemu emulates no
AVX-512. It takes some minutes, so the suite does not run it; see ``make avx512`` for what it needs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pty
import re
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.ext.compiled import compile_check

CHECK: Final = Path(__file__).with_name("check_variants.c")
PROCESSOR: Final = "corei7_skylake_x"
SECONDS: Final = 1_200.0
# What it says of XSAVEC, XSAVES and PKU is not what Linux reckons, which would then do without AVX.
PARAMETERS: Final = (
    "console=ttyS0 nokaslr nopti nospectre_v2 nosmp acpi=off noapic nolapic nowatchdog clearcpuid=321,323,515"
    " lpj=1000000 panic=1 loglevel=4"
)
INIT: Final = """
#include <stdio.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
int main(void) {
    int status = 0;
    const pid_t child = fork();
    if (child == 0) {
        execl("/check", "/check", (char *)0);
        _exit(99);
    }
    waitpid(child, &status, 0);
    printf("ended with %d.\\n", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    fflush(stdout);
    tcdrain(1);
    reboot(RB_HALT_SYSTEM);
    return 0;
}
"""
MENU: Final = """
set timeout=0
menuentry check {{
    linux /boot/vmlinuz {parameters}
    initrd /boot/initrd
}}
"""
MACHINE: Final = """
config_interface: textconfig
display_library: term
cpu: model={processor}, count=1, ips=50000000, reset_on_triple_fault=0
memory: guest=512, host=512
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path={folder}/boot.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev={folder}/serial
clock: sync=none
log: {folder}/log
plugin_ctrl: speaker=0
"""


def boot_image(folder: Path, kernel: Path) -> None:
    """``boot.iso``: the kernel, and the check as what it starts."""
    root, boot = folder / "root", folder / "iso" / "boot"
    root.mkdir()
    (boot / "grub").mkdir(parents=True)
    (folder / "init.c").write_text(INIT)
    subprocess.run(["gcc", "-O1", "-static", str(folder / "init.c"), "-o", str(root / "init")], check=True)
    compile_check(CHECK, "gcc", root / "check", "-static")
    archive = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet"],
        input=b"init\ncheck\n",
        cwd=root,
        capture_output=True,
        check=True,
    )
    (boot / "initrd").write_bytes(archive.stdout)
    (boot / "vmlinuz").write_bytes(kernel.read_bytes())
    (boot / "grub" / "grub.cfg").write_text(MENU.format(parameters=PARAMETERS))
    subprocess.run(
        ["grub-mkrescue", "-o", str(folder / "boot.iso"), str(folder / "iso")],
        check=True,
        capture_output=True,
    )


def run(folder: Path) -> str:
    """What the check says on the serial line, once it has ended."""
    (folder / "machine").write_text(MACHINE.format(processor=PROCESSOR, folder=folder))
    (folder / "begin").write_text("c\n")  # Debian's Bochs waits in its debugger
    master, slave = pty.openpty()  # where it draws its screen
    serial = folder / "serial"
    emulator = subprocess.Popen(
        ["bochs-bin", "-q", "-f", str(folder / "machine"), "-rc", str(folder / "begin")],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(slave)
    told, screen, began = "", b"", time.monotonic()
    try:
        while emulator.poll() is None and time.monotonic() - began < SECONDS:
            told = serial.read_text(errors="replace") if serial.exists() else ""
            if re.search(r"ended with \d+\.", told):
                break
            if select.select([master], [], [], 1.0)[0]:
                with contextlib.suppress(OSError):  # it has ended
                    screen = (screen + os.read(master, 65_536))[-4_000:]
    finally:
        emulator.kill()
        emulator.wait()
        os.close(master)
    return told if "ended with" in told else told + screen.decode(errors="replace")


def main() -> None:
    parser = argparse.ArgumentParser(description="Hold AVX-512 against scalar.")
    parser.add_argument("--kernel", type=Path, default=max(Path("/boot").glob("vmlinuz-*"), default=None))
    asked = parser.parse_args()
    if asked.kernel is None:
        parser.error("no Linux in /boot; name one with --kernel")
    with tempfile.TemporaryDirectory() as folder:
        boot_image(Path(folder), asked.kernel)
        told = run(Path(folder))
    lines = [line for line in told.replace("\r", "").split("\n") if re.match(r"avx|serial|ended", line)]
    print("\n".join(lines) or told[-2_000:])
    held = any(line.startswith("avx512: equals serial") for line in lines)
    sys.exit(0 if held and lines[-1] == "ended with 0." else 1)


if __name__ == "__main__":
    main()
