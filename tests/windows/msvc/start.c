/* Where a program begins: its words are parsed by the runtime library. */
#include <stdlib.h>

_ACRTIMP int *__cdecl __p___argc(void);
_ACRTIMP char ***__cdecl __p___argv(void);
int __cdecl _configure_narrow_argv(int mode);

int main(int count, char **words);

void mainCRTStartup(void)
{
    enum { WITHOUT_WILDCARDS = 1 };

    _configure_narrow_argv(WITHOUT_WILDCARDS);
    exit(main(*__p___argc(), *__p___argv()));
}
