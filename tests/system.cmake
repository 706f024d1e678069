# The conformance program: every folder of tests/cases against what the reference implementations
# computed.
file(GLOB conformance_sources CONFIGURE_DEPENDS conformance/*.c)
add_executable(conformance ${conformance_sources})
target_include_directories(conformance PRIVATE .)
target_link_libraries(conformance room_pipelines fenced)
include(conformance/ranks.cmake)  # the same over several ranks
file(GLOB case_files CONFIGURE_DEPENDS cases/*/case.json)
set(conformance_cases)
foreach(file ${case_files})
  get_filename_component(folder ${file} DIRECTORY)
  list(APPEND conformance_cases ${folder})
endforeach()
foreach(dtype f32 bf16)
  add_test(NAME conformance_${dtype} COMMAND conformance --dtype ${dtype} ${conformance_cases} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
endforeach()
# With the operators that give the same bits everywhere.
add_test(NAME conformance_reproducible COMMAND conformance --kernels reproducible --threads 3 ${conformance_cases}
         WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
# On a device that the host cannot read and whose operators run late.
add_test(NAME conformance_fenced COMMAND conformance --backend fenced ${conformance_cases} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
# Step caches, over every exact mesh too.
file(GLOB cache_cases CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR} cases/step_cache/*)
add_test(NAME conformance-step-cache-bf16 COMMAND conformance --dtype bf16 ${cache_cases} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
foreach(ranks 1 2 4)
  add_test(NAME conformance-step-cache-${ranks} COMMAND ${MPIEXEC_EXECUTABLE} -n ${ranks} $<TARGET_FILE:conformance> ${cache_cases}
           WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(conformance-step-cache-${ranks} PROPERTIES ENVIRONMENT "${mpi_environment}" TIMEOUT 900)
endforeach()
foreach(ranks 3 8)
  add_custom_command(TARGET run_hybrids POST_BUILD WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
                     COMMAND ${CMAKE_COMMAND} -E env ${mpi_environment} ${MPIEXEC_EXECUTABLE} -n ${ranks} $<TARGET_FILE:conformance> ${cache_cases})
endforeach()
