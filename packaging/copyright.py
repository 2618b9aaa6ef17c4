"""Print Debian's copyright file for the bundle: ours, the interpreter's, and that of every package in it.

python3 copyright.py BUNDLE
"""

from __future__ import annotations

import email
import sys
from pathlib import Path

HEAD = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: appliance
Comment: The package carries its own Python, the libraries that this Python was
 linked against, and Python packages. Licence texts of the Python packages are
 beside them, in their *.dist-info directories below /usr/lib/appliance.

Files: *
Copyright: 2026 the appliance authors
License: MIT

Files: usr/lib/appliance/bin/python* usr/lib/appliance/lib/python*
Copyright: 2001-2026 Python Software Foundation
License: PSF-2.0
 The licence of Python, version 2 of the Python Software Foundation:
 https://docs.python.org/3/license.html

Files: usr/lib/appliance/lib/python*/*-packages/*__mypyc*
Copyright: 2026 the appliance authors
 2012-2026 Jukka Lehtosalo and contributors, for the runtime of mypyc in it
License: MIT

Files: usr/lib/appliance/lib/libssl* usr/lib/appliance/lib/libcrypto*
Copyright: 1998-2026 The OpenSSL Project Authors
License: Apache-2.0
 On Debian systems the licence is in /usr/share/common-licenses/Apache-2.0.

Files: usr/lib/appliance/lib/libsqlite3*
Copyright: none, in the public domain
License: public-domain
 The authors of SQLite have dedicated it to the public domain.

Files: usr/lib/appliance/lib/libz* usr/lib/appliance/lib/libbz2*
 usr/lib/appliance/lib/libffi* usr/lib/appliance/lib/liblzma*
 usr/lib/appliance/lib/libuuid*
Copyright: the authors of zlib, bzip2, libffi, xz-utils and util-linux
License: permissive
 zlib (zlib), bzip2 (bzip2-1.0.6), libffi (MIT), liblzma (0BSD, public domain),
 libuuid (BSD-3-Clause).
"""
MIT = """\
License: MIT
 Permission is hereby granted, free of charge, to any person obtaining a copy
 of this software and associated documentation files (the "Software"), to deal
 in the Software without restriction, including without limitation the rights
 to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
 copies of the Software, and to permit persons to whom the Software is
 furnished to do so, subject to the following conditions:
 .
 The above copyright notice and this permission notice shall be included in all
 copies or substantial portions of the Software.
 .
 THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
 IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
 FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
 AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
 LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
 OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
 SOFTWARE.
"""


def main() -> None:
    """Print it."""
    print(HEAD)
    for info in sorted(Path(sys.argv[1]).glob("lib/python3*/*-packages/*.dist-info")):
        facts = email.message_from_string((info / "METADATA").read_text("utf-8"))
        if facts["Name"] == "steward-appliance":
            continue
        classifiers = facts.get_all("Classifier") or []
        found = facts["License-Expression"] or next(
            (text.split(" :: ")[-1] for text in classifiers if text.startswith("License :: ")),
            str(facts["License"] or "see its licence file").splitlines()[0],
        )
        author = str(facts["Author"] or facts["Author-email"] or f"the authors of {facts['Name']}")
        name = info.name.split("-")[0]
        print(f"Files: usr/lib/appliance/lib/python*/*-packages/{name}*")
        print(f"Copyright: {' '.join(author.split())}")
        print(f"License: {facts['Name']}\n {' '.join(found.split())}\n")
    print(MIT)


if __name__ == "__main__":
    main()
