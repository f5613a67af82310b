"""A reader of the few parts of an ELF file that a release is judged by.

binutils' readelf would do, but is not on every machine that builds, and says the ARM attributes in words that change
between its versions. Everything is bounds-checked by struct and slices: a damaged file is a BadElf, never a wrong answer.
"""
import struct

EXEC, DYN = 2, 3
X86_64, AARCH64, ARM = 62, 183, 40
PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_GNU_STACK, PT_GNU_RELRO = 1, 2, 3, 0x6474E551, 0x6474E552
PF_X, PF_W = 1, 2
DT_NEEDED = 1
SHT_NOBITS = 8

# Attributes of "aeabi" (Addenda to the ABI for the Arm Architecture): these tags hold a string, 32 a number and a string,
# and of those above 32 the odd ones hold a string; all others hold a number.
TAG_STRINGS = {4, 5, 65, 67}
TAG_CPU_ARCH, TAG_FP_ARCH, TAG_SIMD_ARCH, TAG_VFP_ARGS = 6, 10, 12, 28


class BadElf(Exception):
    """The file is no ELF file, or a damaged one."""


class Elf:
    def __init__(self, data):
        self.data = data
        if data[:4] != b"\x7fELF" or len(data) < 52:
            raise BadElf("it is no ELF file")
        self.bits = {1: 32, 2: 64}.get(data[4])
        if self.bits is None or data[5] != 1:
            raise BadElf("it is neither 32 nor 64 bits, little-endian")
        try:
            self._read()
        except (struct.error, IndexError, ValueError) as damage:
            raise BadElf(f"it is a damaged ELF file ({damage})") from damage

    def _read(self):
        wide = self.bits == 64
        head = struct.unpack_from("<HHIQQQIHHHHHH" if wide else "<HHIIIIIHHHHHH", self.data, 16)
        self.type, self.machine, _, self.entry, phoff, shoff, self.flags, _, phsize, phnum, shsize, shnum, names = head
        self.segments = []
        for i in range(phnum):
            at = phoff + i * phsize
            if wide:
                kind, flags, offset, vaddr, _, filesz, memsz, align = struct.unpack_from("<IIQQQQQQ", self.data, at)
            else:
                kind, offset, vaddr, _, filesz, memsz, flags, align = struct.unpack_from("<IIIIIIII", self.data, at)
            if offset + filesz > len(self.data):
                raise ValueError("a segment ends behind the file")
            self.segments.append(dict(kind=kind, flags=flags, offset=offset, vaddr=vaddr, filesz=filesz, memsz=memsz, align=align, header=at))
        rows = [struct.unpack_from("<IIQQQQ" if wide else "<IIIIII", self.data, shoff + i * shsize) for i in range(shnum)]
        table = rows[names][4] if rows else 0
        self.sections = []
        for name, kind, _, addr, offset, size in rows:
            end = self.data.index(b"\0", table + name)
            self.sections.append(dict(name=self.data[table + name : end].decode("ascii", "replace"), kind=kind, addr=addr, offset=offset, size=size))

    def of_kind(self, kind):
        return [s for s in self.segments if s["kind"] == kind]

    def section(self, name):
        return next((s for s in self.sections if s["name"] == name), None)

    def content(self, part):
        return self.data[part["offset"] : part["offset"] + part.get("filesz", part.get("size", 0))]

    def needed(self):
        """How many shared libraries the file asks for."""
        form = "<qQ" if self.bits == 64 else "<iI"
        count = 0
        for segment in self.of_kind(PT_DYNAMIC):
            table = self.content(segment)
            entries = struct.iter_unpack(form, table[: len(table) - len(table) % struct.calcsize(form)])
            count += sum(1 for tag, _ in entries if tag == DT_NEEDED)
        return count

    def place(self, offset):
        """The name of the section in which this offset of the file lies."""
        for s in self.sections:
            if s["kind"] != SHT_NOBITS and s["size"] and s["offset"] <= offset < s["offset"] + s["size"]:
                return s["name"] or "?"
        return "between the sections"

    def arm_attributes(self):
        """The file-wide attributes of an ARM executable as {tag: value}."""
        section = self.section(".ARM.attributes")
        if section is None:
            return {}
        data = self.content(section)
        if data[:1] != b"A":
            raise BadElf("its ARM attributes are of an unknown kind")
        found, at = {}, 1
        try:
            while at < len(data):
                (size,) = struct.unpack_from("<I", data, at)
                end = data.index(b"\0", at + 4)
                if data[at + 4 : end] == b"aeabi":
                    found.update(_file_attributes(data[end + 1 : at + size]))
                if size == 0:
                    break
                at += size
        except (struct.error, IndexError, ValueError) as damage:
            raise BadElf(f"its ARM attributes are damaged ({damage})") from damage
        return found


def _file_attributes(data):
    found, at = {}, 0
    while at < len(data):
        tag, (size,) = data[at], struct.unpack_from("<I", data, at + 1)
        if tag == 1:  # of the whole file
            pos, end = at + 5, at + size
            while pos < end:
                name, pos = _uleb(data, pos)
                if name == 32 or name not in TAG_STRINGS and (name < 32 or name % 2 == 0):
                    found[name], pos = _uleb(data, pos)
                if name == 32 or name in TAG_STRINGS or name > 32 and name % 2 == 1:
                    pos = data.index(b"\0", pos) + 1
        if size == 0:
            break
        at += size
    return found


def _uleb(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
