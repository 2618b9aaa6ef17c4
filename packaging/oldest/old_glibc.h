/* Included before every source: glibc 2.29 gave these new versions, for errno in corner cases. With the first ones
   the program runs on older systems as well. */
#if defined(__x86_64__)
#define OLDEST "GLIBC_2.2.5"
#elif defined(__aarch64__)
#define OLDEST "GLIBC_2.17"
#endif
__asm__(".symver exp, exp@" OLDEST);
__asm__(".symver exp2, exp2@" OLDEST);
__asm__(".symver log, log@" OLDEST);
__asm__(".symver log2, log2@" OLDEST);
__asm__(".symver pow, pow@" OLDEST);
