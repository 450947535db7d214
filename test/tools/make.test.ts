import { writeFiles } from '../fixtures/command-checks.ts';
import { shell, testInForks } from './tool-runs.ts';

const SOURCES = {
  Makefile: `
OBJECTS = main.o text.o number.o
program: $(OBJECTS) lib.a
\tcc -o $@ $(OBJECTS) lib.a
%.o: %.c
\tcc -MMD -c -o $@ $<
lib.a: lib.o
\tar rc $@ lib.o
clean:
\trm -f program *.o *.d lib.a
-include *.d
`,
  'main.c': '#include "text.h"\n#include "number.h"\nint main(void) { print_text(); return number() - 42; }\n',
  'text.h': 'void print_text(void);\n',
  'text.c': '#include <stdio.h>\n#include "text.h"\n#include "lib.h"\nvoid print_text(void) { puts(WORD); lib(); }\n',
  'number.h': '#define NUMBER 42\nint number(void);\n',
  'number.c': '#include "number.h"\nint number(void) { return NUMBER; }\n',
  'lib.h': '#define WORD "lib"\nvoid lib(void);\n',
  'lib.c': '#include <stdio.h>\n#include "lib.h"\nvoid lib(void) { puts(__func__); }\n',
};

/** make knows by times alone what to build: sources of the past, one changed now. */
const WORK = `
make
./program
make -q && echo nothing to do
touch number.h
make
sed -i 's/"lib"/"changed"/' lib.h
make
./program
make -q && echo nothing to do
rm text.o
make -n
make -j4
make clean
make -s -j4
./program
ls
`;

testInForks('make builds a C project, and then just what changed', ['make', 'cc', 'ar', 'sed'], {
  prepare: async (place) => {
    writeFiles(place.dir, SOURCES);
    await shell(place, "touch -d '2020-01-01' *\nmake -s\ntouch -d '2020-01-02' *.o *.d lib.a program");
  },
  work: async (place) => await shell(place, WORK),
});
