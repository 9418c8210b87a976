/* In every module and program: what Microsoft's compiler takes from the runtime library that it links to them. */

int _fltused = 1; /* who computes with floating point refers to it */

__int64 _abs64(__int64 number)
{
    return number < 0 ? -number : number;
}

BOOL WINAPI _DllMainCRTStartup(HINSTANCE module, DWORD reason, void *reserved)
{
    (void)module, (void)reason, (void)reserved;
    return TRUE;
}
