// A static probe: which AVX-512 extensions CPUID reports and the kernel enabled, and
// whether a few instructions agree with scalar loops.
#include <immintrin.h>
#include <cpuid.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
static uint64_t s=0x9E3779B97F4A7C15ull;
static uint32_t rnd(void){s^=s<<13;s^=s>>7;s^=s<<17;return (uint32_t)(s>>16);}
#define T512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vpopcntdq,avx512bitalg,avx512vbmi,avx512vbmi2")))
static int fails, cases;
static void check(const char*what,const void*a,const void*b,size_t n){cases++;if(memcmp(a,b,n)){if(fails<20)printf("MISMATCH %s\n",what);fails++;}}
static int32_t sat(int64_t v){return v>INT32_MAX?INT32_MAX:v<INT32_MIN?INT32_MIN:(int32_t)v;}
T512 static void run(int it,int vnni,int popd,int bit){
 uint8_t a[64],b[64]; int32_t c[16],r[16],q[16]; int16_t h[32],g[32];
 for(int i=0;i<64;i++){a[i]=rnd();b[i]=rnd();}
 for(int i=0;i<16;i++)c[i]=it%3?(int32_t)rnd():(it&1?INT32_MAX-(int)(rnd()%9999):INT32_MIN+(int)(rnd()%9999));
 memcpy(h,a,64);memcpy(g,b,64);
 __m512i A=_mm512_loadu_si512(a),B=_mm512_loadu_si512(b),C=_mm512_loadu_si512(c);
 __mmask16 m=(__mmask16)rnd();
 if(vnni){
  for(int i=0;i<16;i++){int64_t t=c[i];for(int k=0;k<4;k++)t+=(int)a[4*i+k]*(int)(int8_t)b[4*i+k];r[i]=(int32_t)(uint32_t)t;q[i]=sat(t);}
  int32_t o[16];
  _mm512_storeu_si512(o,_mm512_dpbusd_epi32(C,A,B));check("vpdpbusd zmm",o,r,64);
  _mm512_storeu_si512(o,_mm512_dpbusds_epi32(C,A,B));check("vpdpbusds zmm",o,q,64);
  int32_t mr[16];for(int i=0;i<16;i++)mr[i]=(m>>i&1)?r[i]:c[i];
  _mm512_storeu_si512(o,_mm512_mask_dpbusd_epi32(C,m,A,B));check("vpdpbusd zmm{k}",o,mr,64);
  for(int i=0;i<16;i++)mr[i]=(m>>i&1)?r[i]:0;
  _mm512_storeu_si512(o,_mm512_maskz_dpbusd_epi32(m,C,A,B));check("vpdpbusd zmm{k}{z}",o,mr,64);
  _mm256_storeu_si256((void*)o,_mm256_dpbusd_epi32(_mm512_castsi512_si256(C),_mm512_castsi512_si256(A),_mm512_castsi512_si256(B)));check("vpdpbusd ymm",o,r,32);
  _mm_storeu_si128((void*)o,_mm_dpbusd_epi32(_mm512_castsi512_si128(C),_mm512_castsi512_si128(A),_mm512_castsi512_si128(B)));check("vpdpbusd xmm",o,r,16);
  for(int i=0;i<16;i++){int64_t t=c[i];for(int k=0;k<2;k++)t+=(int)h[2*i+k]*(int)g[2*i+k];r[i]=(int32_t)(uint32_t)t;q[i]=sat(t);}
  _mm512_storeu_si512(o,_mm512_dpwssd_epi32(C,A,B));check("vpdpwssd zmm",o,r,64);
  _mm512_storeu_si512(o,_mm512_dpwssds_epi32(C,A,B));check("vpdpwssds zmm",o,q,64);
  _mm256_storeu_si256((void*)o,_mm256_dpwssd_epi32(_mm512_castsi512_si256(C),_mm512_castsi512_si256(A),_mm512_castsi512_si256(B)));check("vpdpwssd ymm",o,r,32);
  // memory operand with broadcast
  int32_t w;memcpy(&w,b,4);for(int i=0;i<16;i++){uint32_t t=(uint32_t)c[i];for(int k=0;k<4;k++)t+=(uint32_t)((int)a[4*i+k]*(int)(int8_t)b[k]);r[i]=(int32_t)t;}
  _mm512_storeu_si512(o,_mm512_dpbusd_epi32(C,A,_mm512_set1_epi32(w)));check("vpdpbusd zmm,bcst",o,r,64);
 }
 {int32_t o[16],e[16];for(int i=0;i<16;i++)e[i]=(int)((unsigned)h[2*i]*(unsigned)g[2*i]+(unsigned)h[2*i+1]*(unsigned)g[2*i+1]);
  _mm512_storeu_si512(o,_mm512_madd_epi16(A,B));check("vpmaddwd zmm",o,e,64);
  int16_t oh[32],eh[32];for(int i=0;i<32;i++){int t=(int)a[2*i]*(int8_t)b[2*i]+(int)a[2*i+1]*(int8_t)b[2*i+1];eh[i]=t>32767?32767:t<-32768?-32768:t;}
  _mm512_storeu_si512(oh,_mm512_maddubs_epi16(A,B));check("vpmaddubsw zmm",oh,eh,64);
  uint64_t k=0,ke=_mm512_cmplt_epi8_mask(A,B),km=_mm512_movepi8_mask(A),kk=0,kt=_mm512_test_epi8_mask(A,B),kx=0;
  for(int i=0;i<64;i++){k|=(uint64_t)((int8_t)a[i]<(int8_t)b[i])<<i;kk|=(uint64_t)(a[i]>>7)<<i;kx|=(uint64_t)((a[i]&b[i])!=0)<<i;}
  check("vpcmpb k",&ke,&k,8);check("vpmovb2m",&km,&kk,8);check("vptestmb",&kt,&kx,8);
  uint8_t ob[64],eb[64];for(int i=0;i<64;i++){int p=b[i]&0x80?0:a[(i&48)+(b[i]&15)];eb[i]=p;}
  _mm512_storeu_si512(ob,_mm512_shuffle_epi8(A,B));check("vpshufb zmm",ob,eb,64);
  for(int i=0;i<64;i++)eb[i]=(kk>>i&1)?b[i]:0;
  _mm512_storeu_si512(ob,_mm512_maskz_mov_epi8(km,B));check("vmovdqu8{k}{z}",ob,eb,64);
  for(int i=0;i<64;i++)eb[i]=(a[i]&b[i])|(~a[i]&((uint8_t*)c)[i]);
  _mm512_storeu_si512(ob,_mm512_ternarylogic_epi32(A,B,C,0xca));check("vpternlogd",ob,eb,64);
  for(int i=0;i<16;i++)e[i]=c[((uint32_t*)b)[i]&15];
  _mm512_storeu_si512(o,_mm512_permutexvar_epi32(B,C));check("vpermd zmm",o,e,64);
  // masked load at the end of a buffer, sign extension, float fma
  memset(ob,0,64);int n=rnd()%65;__mmask64 lm=n==64?~0ull:(1ull<<n)-1;for(int i=0;i<64;i++)eb[i]=i<n?a[i]:0;
  _mm512_storeu_si512(ob,_mm512_maskz_loadu_epi8(lm,a));check("masked load",ob,eb,64);
  float f[16],f2[16],fo[16],fe[16];for(int i=0;i<16;i++){f[i]=(int)rnd()*1e-5f;f2[i]=(int)rnd()*1e-7f;fe[i]=__builtin_fmaf(f[i],f2[i],(float)c[i]);}
  _mm512_storeu_ps(fo,_mm512_fmadd_ps(_mm512_loadu_ps(f),_mm512_loadu_ps(f2),_mm512_cvtepi32_ps(C)));check("vfmadd ps + vcvtdq2ps",fo,fe,64);
  int red=_mm512_reduce_add_epi32(C);unsigned rr=0;for(int i=0;i<16;i++)rr+=(unsigned)c[i];check("reduce_add",&red,&rr,4);
 }
 if(popd){uint32_t o[16],e[16];uint64_t o8[8],e8[8];
  for(int i=0;i<16;i++){uint32_t w;memcpy(&w,a+4*i,4);e[i]=0;for(;w;w&=w-1)e[i]++;}
  _mm512_storeu_si512(o,_mm512_popcnt_epi32(A));check("vpopcntd zmm",o,e,64);
  for(int i=0;i<8;i++)e8[i]=e[2*i]+e[2*i+1];
  _mm512_storeu_si512(o8,_mm512_popcnt_epi64(A));check("vpopcntq zmm",o8,e8,64);}
 if(bit){uint8_t o[64],e[64];for(int i=0;i<64;i++){e[i]=0;for(int w=a[i];w;w&=w-1)e[i]++;}
  _mm512_storeu_si512(o,_mm512_popcnt_epi8(A));check("vpopcntb zmm",o,e,64);
  uint16_t o2[32],e2[32];for(int i=0;i<32;i++)e2[i]=e[2*i]+e[2*i+1];
  _mm512_storeu_si512(o2,_mm512_popcnt_epi16(A));check("vpopcntw zmm",o2,e2,64);}
}
int main(int argc,char**argv){
 unsigned a,b,c,d,r[12];
 for(int i=0;i<3;i++)__cpuid(0x80000002+i,r[4*i],r[4*i+1],r[4*i+2],r[4*i+3]);
 printf("cpu: %.48s\n",(char*)r);
 __cpuid(1,a,b,c,d);unsigned lo=0,hi=0;if(c>>27&1)__asm__ volatile("xgetbv":"=a"(lo),"=d"(hi):"c"(0));
 printf("xcr0: 0x%x (zmm state %s)\n",lo,(lo&0xe6)==0xe6?"enabled":"NOT enabled");
 __cpuid_count(7,0,a,b,c,d);
 printf("avx2=%u avx512f=%u dq=%u ifma=%u cd=%u bw=%u vl=%u\n",b>>5&1,b>>16&1,b>>17&1,b>>21&1,b>>28&1,b>>30&1,b>>31&1);
 printf("vbmi=%u vbmi2=%u gfni=%u vaes=%u vpclmulqdq=%u vnni=%u bitalg=%u vpopcntdq=%u vp2intersect=%u fp16=%u\n",c>>1&1,c>>6&1,c>>8&1,c>>9&1,c>>10&1,c>>11&1,c>>12&1,c>>14&1,d>>8&1,d>>23&1);
 unsigned a1,b1,c1,d1;__cpuid_count(7,1,a1,b1,c1,d1);printf("avx_vnni=%u avx512_bf16=%u amx_int8=%u amx_tile=%u\n",a>=1?a1>>4&1:0,a>=1?a1>>5&1:0,d>>25&1,d>>24&1);
 printf("args:");for(int i=1;i<argc;i++)printf(" [%s]",argv[i]);puts("");
 fflush(stdout);
 if(!(b>>16&1)||(lo&0xe6)!=0xe6){puts("no avx512");return 3;}
 struct timespec t0,t1;clock_gettime(CLOCK_MONOTONIC,&t0);
 for(int i=0;i<2000;i++)run(i,c>>11&1,c>>14&1,c>>12&1);
 clock_gettime(CLOCK_MONOTONIC,&t1);
 printf("checks: %d, mismatches: %d, guest time %.3f s\n",cases,fails,(t1.tv_sec-t0.tv_sec)+(t1.tv_nsec-t0.tv_nsec)*1e-9);
 return fails!=0;}
